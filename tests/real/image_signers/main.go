// What cosign and notation make of images, by the libraries that these programs are made of.
//
//	image-signers serve referrers|tags                a registry, with the API for referrers or without; prints its address
//	image-signers cosign-tag REFERENCE PUBLIC         sign in the older form; writes the public key
//	image-signers cosign-bundle REFERENCE PUBLIC      sign in the newer form; writes the public key
//	image-signers cosign-verify REFERENCE PUBLIC      verify whichever form there is
//	image-signers notation-sign REFERENCE ROOT        sign; writes the certificate, which is its own root
//	image-signers notation-verify REFERENCE ROOT
package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	registries "github.com/google/go-containerregistry/pkg/registry"
	"github.com/notaryproject/notation-core-go/signature/jws"
	"github.com/notaryproject/notation-go"
	"github.com/notaryproject/notation-go/registry"
	"github.com/notaryproject/notation-go/signer"
	"github.com/notaryproject/notation-go/verifier"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/notaryproject/notation-go/verifier/truststore"
	"github.com/sigstore/cosign/v3/pkg/cosign"
	"github.com/sigstore/cosign/v3/pkg/oci/mutate"
	ociremote "github.com/sigstore/cosign/v3/pkg/oci/remote"
	"github.com/sigstore/cosign/v3/pkg/oci/static"
	"github.com/sigstore/cosign/v3/pkg/types"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/payload"
	"google.golang.org/protobuf/encoding/protojson"
	"oras.land/oras-go/v2/registry/remote"
)

func main() {
	log.SetFlags(0)
	if os.Args[1] == "serve" {
		serve(os.Args[2] == "referrers")
	}
	command, reference, file := os.Args[1], os.Args[2], os.Args[3]
	ctx := context.Background()
	commands := map[string]func(context.Context, string, string) error{
		"cosign-tag":      signByTag,
		"cosign-bundle":   signByBundle,
		"cosign-verify":   verifyByCosign,
		"notation-sign":   signByNotation,
		"notation-verify": verifyByNotation,
	}
	if err := commands[command](ctx, reference, file); err != nil {
		log.Fatal(err)
	}
}

func serve(listsReferrers bool) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	quiet := registries.Logger(log.New(os.Stderr, "", 0))
	log.Fatal(http.Serve(listener, registries.New(quiet, registries.WithReferrersSupport(listsReferrers))))
}

func digestOf(reference string) (name.Digest, error) {
	parsed, err := name.ParseReference(reference)
	if err != nil {
		return name.Digest{}, err
	}
	return ociremote.ResolveDigest(parsed)
}

func signByTag(_ context.Context, reference, public string) error {
	digest, err := digestOf(reference)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	keys, err := signature.LoadECDSASignerVerifier(key, crypto.SHA256)
	if err != nil {
		return err
	}
	text, err := payload.Cosign{Image: digest}.MarshalJSON()
	if err != nil {
		return err
	}
	signed, err := keys.SignMessage(bytes.NewReader(text))
	if err != nil {
		return err
	}
	attached, err := static.NewSignature(text, base64.StdEncoding.EncodeToString(signed))
	if err != nil {
		return err
	}
	image, err := ociremote.SignedEntity(digest)
	if err != nil {
		return err
	}
	image, err = mutate.AttachSignatureToEntity(image, attached)
	if err != nil {
		return err
	}
	if err := ociremote.WriteSignatures(digest.Repository, image); err != nil {
		return err
	}
	encoded, err := cryptoutils.MarshalPublicKeyToPEM(key.Public())
	if err != nil {
		return err
	}
	return os.WriteFile(public, encoded, 0o600)
}

func signByBundle(ctx context.Context, reference, public string) error {
	digest, err := digestOf(reference)
	if err != nil {
		return err
	}
	keys, err := sign.NewEphemeralKeypair(nil)
	if err != nil {
		return err
	}
	algorithm, value, _ := strings.Cut(digest.DigestStr(), ":")
	statement := fmt.Sprintf(
		`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{%q:%q}}],"predicateType":%q,"predicate":{}}`,
		algorithm, value, types.CosignSignPredicateType,
	)
	content := &sign.DSSEData{Data: []byte(statement), PayloadType: types.IntotoPayloadType}
	sealed, err := sign.Bundle(content, keys, sign.BundleOptions{Context: ctx})
	if err != nil {
		return err
	}
	text, err := protojson.Marshal(sealed)
	if err != nil {
		return err
	}
	if err := ociremote.WriteAttestationNewBundleFormat(digest, text, types.CosignSignPredicateType); err != nil {
		return err
	}
	encoded, err := keys.GetPublicKeyPem()
	if err != nil {
		return err
	}
	return os.WriteFile(public, []byte(encoded), 0o600)
}

func verifyByCosign(ctx context.Context, reference, public string) error {
	parsed, err := name.ParseReference(reference)
	if err != nil {
		return err
	}
	encoded, err := os.ReadFile(public)
	if err != nil {
		return err
	}
	key, err := cryptoutils.UnmarshalPEMToPublicKey(encoded)
	if err != nil {
		return err
	}
	verifies, err := signature.LoadVerifier(key, crypto.SHA256)
	if err != nil {
		return err
	}
	options := &cosign.CheckOpts{SigVerifier: verifies, IgnoreTlog: true, IgnoreSCT: true, Offline: true}
	if bundles, _, err := cosign.GetBundles(ctx, parsed, nil); err == nil && len(bundles) > 0 {
		options.NewBundleFormat, options.ClaimVerifier = true, cosign.IntotoSubjectClaimVerifier
		_, _, err = cosign.VerifyImageAttestations(ctx, parsed, options)
		return err
	}
	options.ClaimVerifier = cosign.SimpleClaimVerifier
	_, _, err = cosign.VerifyImageSignatures(ctx, parsed, options)
	return err
}

func signByNotation(ctx context.Context, reference, root string) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	subject := pkix.Name{Country: []string{"US"}, Province: []string{"WA"}, Organization: []string{"Notary"}, CommonName: "us"}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      subject,
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	signs, err := signer.NewGenericSigner(key, []*x509.Certificate{certificate})
	if err != nil {
		return err
	}
	repository, err := repositoryOf(reference)
	if err != nil {
		return err
	}
	options := notation.SignOptions{ArtifactReference: reference}
	options.SignatureMediaType = jws.MediaTypeEnvelope
	if _, err := notation.Sign(ctx, signs, repository, options); err != nil {
		return err
	}
	encoded := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return os.WriteFile(root, encoded, 0o600)
}

type roots []*x509.Certificate

func (found roots) GetCertificates(context.Context, truststore.Type, string) ([]*x509.Certificate, error) {
	return found, nil
}

func verifyByNotation(ctx context.Context, reference, root string) error {
	encoded, err := os.ReadFile(root)
	if err != nil {
		return err
	}
	certificates, err := cryptoutils.UnmarshalCertificatesFromPEM(encoded)
	if err != nil {
		return err
	}
	policy := trustpolicy.Document{
		Version: "1.0",
		TrustPolicies: []trustpolicy.TrustPolicy{{
			Name:                  "all",
			RegistryScopes:        []string{"*"},
			SignatureVerification: trustpolicy.SignatureVerification{VerificationLevel: "strict"},
			TrustStores:           []string{"ca:all"},
			TrustedIdentities:     []string{"*"},
		}},
	}
	verifies, err := verifier.New(&policy, roots(certificates), nil)
	if err != nil {
		return err
	}
	repository, err := repositoryOf(reference)
	if err != nil {
		return err
	}
	options := notation.VerifyOptions{ArtifactReference: reference, MaxSignatureAttempts: 10}
	_, _, err = notation.Verify(ctx, verifies, repository, options)
	return err
}

func repositoryOf(reference string) (registry.Repository, error) {
	repository, err := remote.NewRepository(reference)
	if err != nil {
		return nil, err
	}
	repository.PlainHTTP = true
	return registry.NewRepository(repository), nil
}
