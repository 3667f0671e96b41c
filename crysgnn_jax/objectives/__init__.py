"""Losses: pure functions of a model's outputs and a batch.

A loss is ``(outputs, graph) → (value, parts)``: a scalar, and a dict of scalars worth logging.
On several devices each device returns its share: the shares of all devices add up to the loss of
the whole batch, because means are taken over the real rows of all devices (``axis_name``).
"""
