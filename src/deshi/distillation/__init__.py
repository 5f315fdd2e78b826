"""Distillation: what a student learns from what a teacher has written down."""
