"""The wire below our own channels: frames, values, the socket that is shared with the AMQP client.

aio-pika connects, logs in, tunes, beats and closes. aiormq below it gives its socket away through `TransportFactory`;
the frames of our own channels, numbered from the top, are read and written here, all others go to the client.
Source: https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf and https://www.rabbitmq.com/amqp-0-9-1-errata
"""
