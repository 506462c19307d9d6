"""One CT slice: read a file, window HU, bring it to the network's input, draw a phantom. No torch in this room."""
