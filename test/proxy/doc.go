// Package proxy stands between a client and a server and makes the network
// worse: it delays, limits, cuts and stalls. It is for tests and for the bench.
//
// A delay is a distance, not a narrow line: what comes later comes as fast as
// before, and any number of bytes is under way at once. The handshake of TCP,
// which the kernel does with the proxy at once, is paid for too: the server is
// not dialled before it would have seen the client.
package proxy
