"""The wire below our own channels: frames, values, the socket that is shared with the AMQP client.

aiormq connects, logs in, tunes, beats and closes. It gives its socket away through `TransportFactory`; the frames of
our own channels, numbered from the top, are read and written here, and all others go to the client.
Source: https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf and https://www.rabbitmq.com/amqp-0-9-1-errata
"""
