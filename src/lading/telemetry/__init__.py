"""Reports of a delivery: messages for people, and traces by OpenTelemetry's protocol."""
