"""The measurements that state goals."""
