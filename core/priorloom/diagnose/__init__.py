"""Diagnosis of reconstruction: what an unrolled network does to the error, layer by layer."""
