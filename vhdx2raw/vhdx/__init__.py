"""The VHDX format: from the bytes of one file to a checked `VhdxImage`."""
