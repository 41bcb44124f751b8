/**
 * What we use of the YAML parser, to be imported when YAML is read: those who read none do not wait for it. The
 * package is CommonJS, whose names a bundle loses when it is itself what is imported dynamically.
 */
export { isMap, isPair, LineCounter, parseDocument } from 'yaml';
