/**
 * Certificates for tests, made with nothing but Node: an authority of one's own, what it issues for servers and clients,
 * and its list of those it has revoked. They are valid for a day.
 */
import { createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto';

export interface Certificate {
  /** PEM. */
  readonly cert: string;
  readonly key: string;
  readonly serial: Buffer;
}

export interface Authority extends Certificate {
  /** For a server by its names (DNS or IPv4), or for a client by its user: `commonName` without names. */
  issue(commonName: string, names?: readonly string[]): Certificate;
  /** The list of revoked certificates, PEM. */
  revoke(...certificates: readonly Certificate[]): string;
}

export function createAuthority(name: string): Authority {
  const keys = newKeys();
  const own = certify({
    subject: name,
    issuer: name,
    keys,
    signer: keys.privateKey,
    names: [],
    authority: true,
  });
  return {
    ...own,
    issue: (commonName, names = []) =>
      certify({
        subject: commonName,
        issuer: name,
        keys: newKeys(),
        signer: keys.privateKey,
        names,
        authority: false,
      }),
    revoke: (...certificates) => revoked(name, keys.privateKey, certificates),
  };
}

/** One that nobody vouches for but itself. */
export function selfSigned(commonName: string, names: readonly string[]): Certificate {
  const keys = newKeys();
  return certify({
    subject: commonName,
    issuer: commonName,
    keys,
    signer: keys.privateKey,
    names,
    authority: false,
  });
}

function newKeys() {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' });
}

interface Request {
  readonly subject: string;
  readonly issuer: string;
  readonly keys: { readonly privateKey: KeyObject; readonly publicKey: KeyObject };
  readonly signer: KeyObject;
  readonly names: readonly string[];
  readonly authority: boolean;
}

function certify({ subject, issuer, keys, signer, names, authority }: Request): Certificate {
  const serial = Buffer.concat([Buffer.from([1]), randomBytes(8)]);
  const spki = createPublicKey(keys.privateKey).export({ type: 'spki', format: 'der' });
  const extensions = [
    extension('551d13', true, sequence(...(authority ? [der(0x01, Buffer.from([0xff]))] : []))),
    // For an authority: to sign certificates and lists.
    ...(authority ? [extension('551d0f', true, der(0x03, Buffer.from([1, 0x06])))] : []),
    ...(names.length === 0 ? [] : [extension('551d11', false, sequence(...names.map(alternativeName)))]),
  ];
  const body = sequence(
    der(0xa0, der(0x02, Buffer.from([2]))),
    der(0x02, serial),
    ECDSA_SHA256,
    distinguished(issuer),
    sequence(time(-1), time(1)),
    distinguished(subject),
    spki,
    der(0xa3, sequence(...extensions)),
  );
  const key = keys.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  return { cert: signed('CERTIFICATE', body, signer), key, serial };
}

function revoked(issuer: string, signer: KeyObject, certificates: readonly Certificate[]): string {
  const entries = certificates.map(({ serial }) => sequence(der(0x02, serial), time(-1)));
  const body = sequence(
    der(0x02, Buffer.from([1])),
    ECDSA_SHA256,
    distinguished(issuer),
    time(-1),
    time(1),
    ...(entries.length === 0 ? [] : [sequence(...entries)]),
  );
  return signed('X509 CRL', body, signer);
}

function signed(label: string, body: Buffer, signer: KeyObject): string {
  const signature = der(0x03, Buffer.from([0]), sign('sha256', body, signer));
  const text = sequence(body, ECDSA_SHA256, signature).toString('base64');
  return `-----BEGIN ${label}-----\n${text.replace(/.{64}/g, '$&\n').trimEnd()}\n-----END ${label}-----\n`;
}

function extension(oid: string, critical: boolean, value: Buffer): Buffer {
  return sequence(
    der(0x06, Buffer.from(oid, 'hex')),
    ...(critical ? [der(0x01, Buffer.from([0xff]))] : []),
    der(0x04, value),
  );
}

function alternativeName(name: string): Buffer {
  return /^[\d.]+$/.test(name)
    ? der(0x87, Buffer.from(name.split('.').map(Number)))
    : der(0x82, Buffer.from(name));
}

function distinguished(commonName: string): Buffer {
  return sequence(
    der(0x31, sequence(der(0x06, Buffer.from('550403', 'hex')), der(0x0c, Buffer.from(commonName)))),
  );
}

function time(days: number): Buffer {
  const text = new Date(Date.now() + days * 86_400_000).toISOString().replace(/[-:T]|\.\d+/g, '');
  return der(0x18, Buffer.from(text));
}

/** ASN.1 in DER: what everything above is made of. */
function der(tag: number, ...content: readonly Buffer[]): Buffer {
  const body = Buffer.concat(content);
  const size = body.length;
  const length = size < 0x80 ? [size] : size < 0x100 ? [0x81, size] : [0x82, size >> 8, size & 0xff];
  return Buffer.concat([Buffer.from([tag, ...length]), body]);
}

function sequence(...content: readonly Buffer[]): Buffer {
  return der(0x30, ...content);
}

const ECDSA_SHA256 = sequence(der(0x06, Buffer.from('2a8648ce3d040302', 'hex')));
