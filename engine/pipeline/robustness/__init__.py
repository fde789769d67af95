"""Hard cases, disturbances and the search for the unkind input."""
