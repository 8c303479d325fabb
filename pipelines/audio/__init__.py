"""From the bytes of a recording to the samples that a model is given, and the random changes of clips to train on."""
