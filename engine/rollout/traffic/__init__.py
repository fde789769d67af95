"""How traffic is read and shifted: the port (`router`) and its adapters, one file each."""
