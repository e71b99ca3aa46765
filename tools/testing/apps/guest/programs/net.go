// Go's net and net/http against each other: net server ADDRESS on one host, net client ADDRESS on the other.
//
// Go makes its system calls itself and waits by edge-triggered epoll. The client prints NAME <tab> RESULT.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

const patience = 60 * time.Second

// pattern gives n bytes that no page size divides.
func pattern(n int) []byte {
	all := make([]byte, n)
	state := uint32(2463534242)
	for i := range all {
		state ^= state << 13
		state ^= state >> 17
		state ^= state << 5
		all[i] = byte(state)
	}
	return all
}

func listen(address string) net.Listener {
	listener, err := net.Listen("tcp4", address)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return listener
}

func accept(listener net.Listener, handle func(*net.TCPConn)) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		go func() {
			defer conn.Close()
			handle(conn.(*net.TCPConn))
		}()
	}
}

func serve(host string) {
	// Sends back what comes, and ends when the other side has.
	go accept(listen(host+":9001"), func(conn *net.TCPConn) { io.Copy(conn, conn) })
	mux := http.NewServeMux()
	mux.HandleFunc("/sum", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		io.Copy(sum, r.Body)
		fmt.Fprintf(w, "%x", sum.Sum(nil))
	})
	mux.HandleFunc("/chunks", func(w http.ResponseWriter, r *http.Request) {
		for i := 0; i < 100; i++ {
			fmt.Fprintf(w, "chunk %d\n", i)
			w.(http.Flusher).Flush()
		}
	})
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, "/opt/apps/net") // by sendfile
	})
	go http.Serve(listen(host+":9002"), mux)
	// Never answers; last, so that who sees it listen knows that all do.
	accept(listen(host+":9003"), func(conn *net.TCPConn) { io.Copy(io.Discard, conn) })
}

func dial(address string) *net.TCPConn {
	conn, err := net.DialTimeout("tcp4", address, patience)
	if err != nil {
		panic(err)
	}
	conn.SetDeadline(time.Now().Add(patience))
	return conn.(*net.TCPConn)
}

func echo(address string, data []byte) error {
	conn := dial(address)
	defer conn.Close()
	failed := make(chan error, 1)
	go func() {
		_, err := conn.Write(data)
		if err == nil {
			err = conn.CloseWrite()
		}
		failed <- err
	}()
	back, err := io.ReadAll(conn)
	if err := errors.Join(<-failed, err); err != nil {
		return err
	}
	if !bytes.Equal(back, data) {
		return fmt.Errorf("%d bytes came back of %d, or others", len(back), len(data))
	}
	return nil
}

func client(host string) {
	echoes, silent, web := host+":9001", host+":9003", "http://"+host+":9002"
	check("echo", func() error { return echo(echoes, pattern(3_000_001)) })
	check("echo_of_nothing", func() error { return echo(echoes, nil) })
	check("fifty_at_once", func() error {
		var all sync.WaitGroup
		failed := make([]error, 50)
		for i := range failed {
			all.Add(1)
			go func() { defer all.Done(); failed[i] = echo(echoes, pattern(20_000+i)) }()
		}
		all.Wait()
		return errors.Join(failed...)
	})
	check("lines", func() error {
		conn := dial(echoes)
		defer conn.Close()
		lines := bufio.NewReader(conn)
		for i := 0; i < 200; i++ {
			want := fmt.Sprintf("line %d\n", i)
			if _, err := io.WriteString(conn, want); err != nil {
				return err
			}
			if got, err := lines.ReadString('\n'); err != nil || got != want {
				return fmt.Errorf("got %q, %v", got, err)
			}
		}
		return nil
	})
	check("deadline", func() error {
		conn := dial(silent)
		defer conn.Close()
		conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		_, err := conn.Read(make([]byte, 1))
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("read without data: %v", err)
		}
		// A deadline ends a call, not the connection.
		conn.SetDeadline(time.Now().Add(patience))
		_, err = conn.Write([]byte("still there"))
		return err
	})
	check("close_wakes_reader", func() error {
		conn := dial(silent)
		woken := make(chan error, 1)
		go func() { _, err := conn.Read(make([]byte, 1)); woken <- err }()
		time.Sleep(100 * time.Millisecond)
		conn.Close()
		if err := <-woken; !errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("read during close: %v", err)
		}
		return nil
	})
	check("writev", func() error {
		conn := dial(echoes)
		defer conn.Close()
		data := pattern(100_000)
		var parts net.Buffers
		for at := 0; at < len(data); at += 1000 {
			parts = append(parts, data[at:at+1000])
		}
		if _, err := parts.WriteTo(conn); err != nil {
			return err
		}
		conn.CloseWrite()
		back, err := io.ReadAll(conn)
		if err == nil && !bytes.Equal(back, data) {
			err = errors.New("other bytes came back")
		}
		return err
	})
	check("options", func() error {
		conn := dial(echoes)
		defer conn.Close()
		return errors.Join(conn.SetNoDelay(false), conn.SetKeepAlive(true), conn.SetKeepAlivePeriod(time.Minute),
			conn.SetLinger(5), conn.SetReadBuffer(100_000), conn.SetWriteBuffer(100_000))
	})
	check("refused", func() error {
		_, err := net.DialTimeout("tcp4", host+":9999", patience)
		if err == nil || !strings.Contains(err.Error(), "connection refused") {
			return fmt.Errorf("nobody listens, but: %v", err)
		}
		return nil
	})
	check("dial_cancelled", func() error {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := new(net.Dialer).DialContext(ctx, "tcp4", echoes)
		if !errors.Is(err, context.Canceled) {
			return fmt.Errorf("cancelled, but: %v", err)
		}
		return nil
	})
	check("addresses", func() error {
		conn := dial(echoes)
		defer conn.Close()
		if conn.RemoteAddr().String() != echoes {
			return fmt.Errorf("peer %v", conn.RemoteAddr())
		}
		return nil
	})
	check("http_post", func() error {
		data := pattern(2_000_000)
		answer, err := http.Post(web+"/sum", "application/octet-stream", bytes.NewReader(data))
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		got, err := io.ReadAll(answer.Body)
		if err == nil && string(got) != fmt.Sprintf("%x", sha256.Sum256(data)) {
			err = fmt.Errorf("another sum: %s", got)
		}
		return err
	})
	check("http_chunks", func() error {
		answer, err := http.Get(web + "/chunks")
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		got, err := io.ReadAll(answer.Body)
		if err == nil && strings.Count(string(got), "\n") != 100 {
			err = fmt.Errorf("%d chunks", strings.Count(string(got), "\n"))
		}
		return err
	})
	check("http_file", func() error {
		answer, err := http.Get(web + "/file")
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		got, err := io.ReadAll(answer.Body)
		want, _ := os.ReadFile("/opt/apps/net")
		if err == nil && !bytes.Equal(got, want) {
			err = errors.New("another file")
		}
		return err
	})
	check("http_keep_alive", func() error {
		for i := 0; i < 100; i++ {
			answer, err := http.Post(web+"/sum", "text/plain", strings.NewReader(fmt.Sprint(i)))
			if err != nil {
				return err
			}
			io.Copy(io.Discard, answer.Body)
			answer.Body.Close()
		}
		return nil
	})
}

func check(name string, body func() error) {
	defer func() {
		if failure := recover(); failure != nil {
			fmt.Printf("%s\tfailed: %v\n", name, failure)
		}
	}()
	if err := body(); err != nil {
		fmt.Printf("%s\tfailed: %s\n", name, strings.ReplaceAll(err.Error(), "\n", "; "))
	} else {
		fmt.Printf("%s\tok\n", name)
	}
}

func main() {
	if os.Args[1] == "server" {
		serve(os.Args[2])
	} else {
		client(os.Args[2])
	}
}
