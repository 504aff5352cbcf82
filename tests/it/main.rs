//! The gateway over real sockets: each module is one promise of the README.
#![expect(
    clippy::disallowed_methods,
    reason = "tests play clients, which dial the gateway"
)]
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod harness;

// What a plain HTTP request becomes on its way.
mod forward;
// What intermediaries owe to header fields (RFC 9110 §7.6).
mod header_rules;
// `CONNECT`: order, half-close, resets, early bytes, TLS inside.
mod tunnel;
// Protocol switches: a WebSocket over plain HTTP.
mod upgrade;
// Kept-alive connections towards upstreams.
mod reuse;
// Who gets where, and what a refused client is told.
mod refusals;
// What one string of a variable cannot say.
mod policy_file;
// The policy file as it changes.
mod reload;
// What a new policy does to what is open.
mod revocation;
// What the inspector says of the policy, held to what the gateway does.
mod explain;
// Names: cache, families, failures.
mod dns;
// Requests that are none.
mod bad_input;
// `OPTIONS` of the server itself, and of nothing that a rule does not name.
mod asterisk;
// Requests within requests, on raw bytes against what the upstream received.
mod smuggling;
// Clients that mean harm.
mod hostile_clients;
// Clients that go without a word, in every state, while somebody else is waited for, and amid bulk.
mod resets;
// Clients that do not read.
mod slow_readers;
// Content that stands still.
mod stalls;
// Upstreams that do.
mod hostile_upstreams;
// Content that goes past hyper, by a kernel pipe.
mod large_content;
// Timeouts and connection limits.
mod limits;
// One client's share of the connections.
mod client_share;
// What a busy client leaves to the others.
mod fairness;
// Questions to name servers that nobody answers, and what they leave to other clients.
mod questions;
// The account: each request once, however it ended.
mod account;
// Spans of requests and tunnels.
mod traces;
// Collectors that go wrong cost no request.
mod collectors;
// SIGTERM to exit.
mod drain;
// The inspector and the admin port.
mod admin;
// The program as it is started: configuration, exit codes, commands, log lines.
mod program;
// Everything at once, for a while.
mod soak;
// What the documents say, held to what the code does.
mod docs;
// The chart and the image, held to the code.
mod chart;
