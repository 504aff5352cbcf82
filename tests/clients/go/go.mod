module outgate.test/clients

go 1.19
