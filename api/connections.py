"""How bytes become requests: uvicorn's protocol on httptools, and the limit that it lacks."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADER_BYTES = 64 * 1024


class Connection(HttpToolsProtocol):
    """A connection that may not send headers without end: they come before anybody is let in.

    What is counted is what comes without finishing anything: the request's line, headers, trailers.
    Bodies have limits of their own, by what they are.
    """

    _unfinished = 0

    def data_received(self, data: bytes) -> None:
        """Read on, unless there has been too much already."""
        self._unfinished += len(data)
        super().data_received(data)
        if self._unfinished > MAX_HEADER_BYTES and not self.transport.is_closing():
            self.send_400_response("The request's headers are too long.")

    def on_headers_complete(self) -> None:
        """Count anew."""
        self._unfinished = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count anew."""
        self._unfinished = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Count anew."""
        self._unfinished = 0
        super().on_message_complete()
