"""The portfolio database: connections, statements, and writes that pass the fence."""
