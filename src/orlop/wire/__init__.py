"""Protobuf modules generated from `proto/` by `make wire`. Do not edit."""
