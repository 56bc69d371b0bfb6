def begin(module, settings, log):
    pass
