"""Plug-ins for jaxmu: a method, an attack, a metric and a model."""
