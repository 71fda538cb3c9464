"""`make rehearse`: the tasks in real containers, on a network of their own, through deploys and faults."""
