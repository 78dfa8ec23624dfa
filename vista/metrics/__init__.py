"""Metrics: arrays in, a typed result out. No files and no models here."""
