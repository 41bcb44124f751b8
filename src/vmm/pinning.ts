import { readFileSync } from 'node:fs';
import { NemuError } from '../client/errors.ts';

/** As the kernel lists them: `0-3,8`. */
function onlineCpus(): string {
  try {
    return readFileSync('/sys/devices/system/cpu/online', 'utf8').trim();
  } catch {
    return '';
  }
}

const has = (list: string, cpu: number): boolean =>
  list.split(',').some((part) => {
    const [first, last = first] = part.split('-').map(Number);
    return cpu >= first && cpu <= last;
  });

/**
 * Are there processors for the vCPUs that are pinned? Of several one is enough, as for the kernel.
 * @param online as the kernel lists them; what is not known is not refused.
 * @throws NemuError CPU_PIN
 */
export function checkPinning(pin: readonly (readonly number[])[] = [], online = onlineCpus()): void {
  if (online === '') return;
  const index = pin.findIndex((cpus) => cpus.length > 0 && !cpus.some((cpu) => has(online, cpu)));
  if (index < 0) return;
  const wanted =
    pin[index].length > 1 ? `CPUs ${pin[index].join(', ')}: none of them is` : `CPU ${pin[index][0]}: it is not`;
  throw new NemuError('CPU_PIN', `vCPU ${index} cannot be pinned to the host's ${wanted} online.`, {
    hint: `Those are ${online}.`,
  });
}
