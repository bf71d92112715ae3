//! Folds events into what happened. Knows events only.
