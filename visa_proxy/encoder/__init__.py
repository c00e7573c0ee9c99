"""The backbone that detector, translator, fact analyzer and the sample base share: each sentence is encoded once."""
