"""Capture files as one capture, in the order given."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from probes.frames import FrameDecoder
from probes.pcap.classic import PcapReader
from probes.pcap.opening import STANDARD_INPUT, CutShort, OpenCapture, shown
from probes.pcap.pcapng import PcapngReader
from probes.pcap.reader import CaptureReader
from probes.probe import CaptureFileError, CaptureInterrupted, PacketCounts
from probes.segment import Segment

# Chosen because it is a few milliseconds of work: often enough for a progress bar, rare enough to be free.
BATCH_FRAMES: Final = 512


class CaptureFilesProbe:
    """Segments from pcap and pcapng files; `-` is standard input. A `probes.probe.Probe`.

    Every input is opened on construction, so that what can't be read is said before anything is done.
    Regular files are closed again, whatever their number; a pipe stays open, as it can't be read twice.
    """

    name = "pcap"
    sieve = None
    filter_variant = None

    def __init__(
        self, paths: Sequence[str], ports: frozenset[int], *, progress: Callable[[int], None] | None = None
    ) -> None:
        """`progress` is told, once a batch, how many bytes of the files, as they lie on disk, are consumed.

        Raises CaptureFileError.
        """
        self.counts = PacketCounts()
        self._decoder = FrameDecoder(ports, self.counts)
        self._progress = progress
        self._inputs: list[_Input] = []
        if paths.count(STANDARD_INPUT) > 1:
            raise CaptureFileError("standard input was named twice; it can be read only once")
        try:
            for path in paths:
                self._inputs.append(_Input(path, self._decoder))
        except BaseException:
            self.close()
            raise

    @property
    def total_bytes(self) -> int | None:
        """Of all files, as they lie on the disk; None if one is a pipe."""
        sizes = [one.size_bytes for one in self._inputs if one.size_bytes is not None]
        return sum(sizes) if len(sizes) == len(self._inputs) else None

    def is_caught_up(self) -> bool:
        return True

    def interfaces_up(self) -> dict[str, bool]:
        """Empty: there is no interface."""
        return {}

    def batches(self) -> Iterator[Sequence[Segment]]:
        """Segments of all files. Raises CaptureInterrupted at the end if a file ended before its time."""
        troubles: list[str] = []
        remedies: dict[str, None] = {}
        finished_bytes = 0
        for one in self._inputs:
            try:
                for segments in one.batches():
                    if self._progress is not None:
                        self._progress(finished_bytes + one.consumed_bytes)
                    yield segments
            except CutShort as trouble:
                troubles.append(f"{one.name}: {trouble} after {one.frames_read} packets")
                remedies[trouble.remedy] = None
            finally:
                one.close()
            finished_bytes += one.consumed_bytes
        self._decoder.flush()
        if troubles:
            raise CaptureInterrupted(
                f"{'; '.join(troubles)}; all before was read; for the rest, {'; '.join(remedies)}"
            )

    def stop(self) -> None:
        """Changes nothing."""

    def close(self) -> None:
        for one in self._inputs:
            one.close()


class _Input:
    """One file or pipe, and how far it was read."""

    def __init__(self, path: str, decoder: FrameDecoder) -> None:
        self.name = shown(path)
        self.frames_read = 0
        self.consumed_bytes = 0
        self._path = path
        self._decoder = decoder
        self._capture: OpenCapture | None = None
        self._reader: CaptureReader | None = None
        self._open()
        if self.is_regular:
            self.close()

    def _open(self) -> None:
        """Raises CaptureFileError."""
        self._capture = OpenCapture(self._path)
        self.size_bytes = self._capture.size_bytes
        self.is_regular = self._capture.is_regular
        try:
            kind = PcapngReader if self._capture.is_pcapng else PcapReader
            self._reader = kind(self._capture.pieces, self._decoder, self._capture.parts_max)
        except CutShort as trouble:
            self.close()
            raise CaptureFileError(
                f"{self.name}: {trouble}; {trouble.remedy}, or try --probe pyshark"
            ) from trouble

    def batches(self) -> Iterator[list[Segment]]:
        """Raises CutShort."""
        if self._capture is None:
            try:
                self._open()
            except CaptureFileError as error:  # it could be opened a while ago
                raise CutShort(f"it can't be read any more ({error})") from error
        capture, reader = self._capture, self._reader
        assert capture is not None
        assert reader is not None
        frames = BATCH_FRAMES
        while frames == BATCH_FRAMES:
            segments: list[Segment] = []
            try:
                frames = reader.read(BATCH_FRAMES, segments)
            except CutShort:
                yield segments
                raise
            finally:
                self.frames_read = reader.frames_read
                self.consumed_bytes = capture.stream.read_bytes
            yield segments

    def close(self) -> None:
        self._reader = None
        if self._capture is not None:
            self._capture.close()
            self._capture = None
