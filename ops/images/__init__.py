"""`make images`: builds both images, checks them from the inside, and lists their contents."""
