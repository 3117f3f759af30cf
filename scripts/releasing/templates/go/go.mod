module $go

go 1.16
