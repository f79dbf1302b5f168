//! Measures tunnels beside plain tonic, side by side in one run.
