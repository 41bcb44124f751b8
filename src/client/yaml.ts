/**
 * What we use of the YAML library, to be imported when YAML is read or written: others do not wait for it. The
 * package is CommonJS, whose names a bundle loses when it is itself what is imported dynamically.
 */
export { isMap, isPair, LineCounter, parseDocument, stringify } from 'yaml';
