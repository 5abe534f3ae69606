"""What a delivery tells: messages, and traces by OpenTelemetry's protocol."""
