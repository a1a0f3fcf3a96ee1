"""What finished trainings tell: their files, repeated seeds, curves, accuracy against time."""
