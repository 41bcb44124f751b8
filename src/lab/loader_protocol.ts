/** Frame types between a lab's host side and its loader; assets/lab-loader.mjs has the same. */

/** To the lab: a JSON object with `op`; the channel numbers the request. */
export const REQUEST = 1;
/** To the lab: bytes for the request's program or file; an empty one is the end. */
export const STDIN = 2;
/** From the lab: the request's JSON result. On channel 0: the loader is there. */
export const RESULT = 16;
/** From the lab: the request failed; JSON `{message, stack}`. */
export const FAILURE = 17;
/** From the lab: what the request's program wrote. */
export const STDOUT = 18;
export const STDERR = 19;
