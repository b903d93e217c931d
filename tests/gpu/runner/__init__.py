"""The runner. `main` reads the command line, `rows` says what there is to run, `task` runs one row, `schedule` all of them."""
