import { StorageError } from '../error.ts';
import { type Task, wait } from '../task.ts';
import { l1SizeFor } from './create.ts';
import type { Metadata } from './metadata.ts';
import { entryClusters, readSnapshots, settled, writeNew } from './snapshots.ts';

/** Gives the disk another size; a smaller one loses what is behind it. The image must be at rest. */
export function* resizeImage(metadata: Metadata, size: number): Task {
  const { header, file, mapping } = metadata;
  if (header.bitmaps) {
    throw new StorageError(
      `${file.path} cannot be resized: its bitmaps (${header.bitmaps.count}) are for its present size.`,
      'Remove them first.',
    );
  }
  if (header.snapshotCount > 0) {
    const snapshots = yield* readSnapshots(metadata);
    if (header.version === 2) {
      throw new StorageError(
        `${file.path} cannot be resized: a version 2 image with snapshots cannot say how large they were.`,
        `Delete them first: ${snapshots.map(({ name }) => name).join(', ')}.`,
      );
    }
  }
  yield* metadata.beginChange();
  yield* settled(metadata);
  const l1Size = l1SizeFor(header, size, file.path);
  if (size < header.size) yield* dropBehind(metadata, size);
  if (l1Size > header.l1Size) {
    const former = { offset: header.l1Offset, clusters: metadata.clusters(header.l1Size * 8) };
    while (mapping.l1.length < l1Size) {
      mapping.l1.push(0);
      mapping.l1Copied.push(false);
    }
    if (metadata.clusters(l1Size * 8) > former.clusters || former.clusters === 0) {
      const offset = yield* writeNew(metadata, mapping.encodeL1());
      yield* settled(metadata);
      header.l1Offset = offset;
      metadata.guard(offset, metadata.clusters(l1Size * 8), true);
      if (former.clusters > 0) metadata.release(former.offset, former.clusters);
    } else {
      const bytes = mapping.encodeL1();
      yield* wait((done) => file.write(header.l1Offset, [bytes], done));
    }
    header.l1Size = l1Size;
  }
  header.size = size;
  yield* metadata.sync();
  yield* metadata.writeHeader();
  yield* metadata.sync();
  yield* settled(metadata);
}

/** Gives up what is behind the end, so that it is not there when the disk grows again. */
function* dropBehind(metadata: Metadata, size: number): Task {
  const { mapping, header, geometry } = metadata;
  const { clusterSize, entrySize } = geometry;
  const end = Math.ceil(header.size / clusterSize);
  for (let cluster = Math.ceil(size / clusterSize); cluster < end; ) {
    const room = Math.min(mapping.sliceRoom(cluster), end - cluster);
    if (mapping.l2Offset(mapping.l1Index(cluster)) !== 0) {
      yield* metadata.lock.hold(() => metadata.ownTable(cluster));
      const slice = yield* mapping.load(cluster);
      for (let i = 0; slice && i < room; i++) {
        const at = ((cluster + i) % (slice.bytes.length / entrySize)) * entrySize;
        const used = entryClusters(slice.view, at, geometry);
        if (used.count > 0) metadata.release(used.first * clusterSize, used.count, true);
        mapping.set(cluster + i, 0, 0, 0);
      }
      if (metadata.crowded) yield* settled(metadata);
    }
    cluster += room;
  }
}
