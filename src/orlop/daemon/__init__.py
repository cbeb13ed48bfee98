"""orlopd: configuration, assembly of the rooms, and the daemon's life from lock to last goodbye."""
