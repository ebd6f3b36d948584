module checker

go 1.27

// The copy that Go's own source tree vendors: the recipe puts it there.
require golang.org/x/mod v0.0.0

replace golang.org/x/mod => ./mod
