/** Paths in what is told. */
import { homedir } from 'node:os';
import { clip, widthOf } from './style.ts';

/** A path as its owner knows it: `~/nemu.log`. */
export const fromHome = (path: string, home = homedir()): string =>
  home !== '/' && path.startsWith(`${home}/`) ? `~${path.slice(home.length)}` : path;

/** A folder or more, and a name. */
const PATH = /(?<!\S)~?\/(\S+\/)?([^\s/]+)/;

/** A text in which a path is cut in its middle, where there is no room for it: the name of the file stays. */
export function withShortPath(text: string, width: number): string {
  const [path, , name] = PATH.exec(text) ?? [];
  if (path === undefined || widthOf(text) <= width) return text;
  const room = width - widthOf(text) + widthOf(path);
  const folders = path.slice(0, path.length - name.length - 1);
  const short = `${clip(folders, Math.max(0, room - widthOf(name) - 2))}…/${name}`;
  // Beside a folder of one letter nothing is gained.
  return widthOf(short) < widthOf(path) ? text.replace(path, () => short) : text;
}
