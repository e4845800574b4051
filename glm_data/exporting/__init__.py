"""A pack in the formats of other trainers: JSON lines, dense Arrow columns, Megatron's indexed data set, MDS."""
