"""The Spin model of the lease protocol: every promise holds, and each variant with a broken rule violates one."""
