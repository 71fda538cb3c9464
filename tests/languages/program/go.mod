module example.org/program

go 1.19

require example.org/lease v0.0.0

replace example.org/lease => ../../../examples/go
