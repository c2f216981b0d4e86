"""`handset guidelines --experiment`: the measurements behind ShuffleNetV2's guidelines, repeated on any device.

`paper` has the tables as they are printed, `networks` the networks, `measure` takes their times by `pipeline.bench`,
`orderings` says what is ordered otherwise here, `document`, `summary` and `page` tell it.

Reference: Ma, Zhang, Zheng, Sun, "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design", ECCV 2018,
Tables 1 to 4 and 8, the ARM columns: batch 1, one thread.
"""
