// Command net_http is net/http with its default transport; it takes the proxy variables as they are.
// How it says what it got: see the header of ../run.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	response, err := http.Get(os.Args[1])
	if err != nil {
		fmt.Println("error:", err)
		return
	}
	defer response.Body.Close()

	body, err := io.ReadAll(response.Body)
	if err != nil {
		fmt.Println("error:", err)
		return
	}
	if response.StatusCode == http.StatusOK {
		os.Stdout.Write(append([]byte("body: "), body...))
		return
	}
	fmt.Println("error:", response.Status)
	if status := response.Header.Get("Proxy-Status"); status != "" {
		fmt.Println("proxy-status:", status)
	}
	fmt.Printf("body: %s\n", body)
}
