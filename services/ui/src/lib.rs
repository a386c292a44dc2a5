//! A sample service: a web page that uses the AI models through the gateway.
