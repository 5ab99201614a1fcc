"""Diagnosis: how hard a problem is (`spectrum`, `decay`, `picard`, `noise_gain`), what an unrolled network does layer
by layer (`error_split`, `gradient_flow`, `schedule`), and how stable a method is (`stability`, `perturbation`)."""
