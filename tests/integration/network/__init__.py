"""Tests of networks, with real packets in network namespaces that they make."""
