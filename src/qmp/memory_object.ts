import type { MemoryBackend } from './devices.ts';
import { deviceNotFound, QmpError } from './errors.ts';
import type { Monitor } from './monitor.ts';

/** The object of the peer's that a device names as its memory. @throws QmpError when there is none, or it is in use. */
export function memoryObject({ memory }: Monitor, memdev: string | undefined): MemoryBackend {
  if (memdev === undefined) throw new QmpError("'memdev' property must be set");
  const id = memdev.replace(/^\/objects\//, '');
  const object = memory.find((each) => each.id === id);
  if (!object) throw deviceNotFound(memdev);
  if (object.usedBy !== undefined) throw new QmpError(`can't use already busy memdev: ${object.id}`);
  return object;
}

/** A device that is plugged has the object from then on. */
export const claim = (object: MemoryBackend, device: string) => () => {
  object.usedBy = device;
};
