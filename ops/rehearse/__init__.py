"""`make rehearse`: runs the tasks in real containers on a private network, through deploys and faults."""
