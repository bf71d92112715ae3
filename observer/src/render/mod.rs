//! Terminal text. Knows the model and events; decides nothing.
