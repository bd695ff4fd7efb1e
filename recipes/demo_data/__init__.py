"""Models, encoder, questions and passages of the demo and the benchmarks, from registry packages."""
