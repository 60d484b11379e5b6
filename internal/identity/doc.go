// Package identity says who is calling, and on which connection.
//
// [Files] holds the service's certificate and the bundle of authorities, and follows
// their files as they are rotated. [Server] is what grpc-go takes as transport
// credentials: it admits TLS 1.3 connections whose client certificate names exactly
// one SPIFFE ID that is a [vault.Caller]. [CallerFrom] gives that caller to a call,
// after asking again whether its certificate still holds. [Server.Reset] cuts the
// connections of callers, so that bytes not yet sent never leave.
package identity
